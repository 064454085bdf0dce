"""``mode: auto``: per layer the precision that is fastest on this machine, within a bound on what may be lost.

`candidates` says what can be chosen and writes a choice as a model, `race` times models against each other, `judge`
says what they lose, and `search` puts the three together.
"""
