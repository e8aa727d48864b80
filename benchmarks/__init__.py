"""Commands that measure what the documentation claims, and the script that trains the bundled networks."""
