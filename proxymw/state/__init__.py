"""The member table, wherever it lives: this process, one mapped file, or Redis."""
