"""The tests of the project; tests/README.md says what runs where."""
