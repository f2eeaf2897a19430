"""Offline training: one style picture becomes weights and a card in the zoo."""
