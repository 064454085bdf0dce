"""What the commands find, as frozen types with units: each is the form of one JSON document, and how it is read back.

Nothing is computed here. A field that older documents lack has a default; a field that is not known here is kept, so
that what a newer version wrote is read, and written again as it was.
"""
