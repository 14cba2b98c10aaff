"""The HTTP front end and the light kernel (`service.core`) that every part of PairForge shares."""
