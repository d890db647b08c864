"""The questions asked and the answers judged."""
