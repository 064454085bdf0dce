"""Other people's quantizers, run on our statistics and checked like our own."""
