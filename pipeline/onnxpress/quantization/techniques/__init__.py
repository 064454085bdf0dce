"""Accuracy techniques: each changes a float model, or the integers written for it, so that int8 loses less."""
