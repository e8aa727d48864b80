"""The question: which number is explained, and everything that a method may ask. No method is named here."""
