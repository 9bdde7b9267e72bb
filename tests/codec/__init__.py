"""What travels through the codec, and what comes out on the other side."""
