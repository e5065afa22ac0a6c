"""The command line of langbatch: parse, one library call, print."""
