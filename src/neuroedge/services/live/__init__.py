"""Speech that is transcribed while it is spoken."""
