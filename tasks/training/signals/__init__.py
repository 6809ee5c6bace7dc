"""The signals of a training: its teachers, live or cached."""
