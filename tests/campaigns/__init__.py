"""Long trials that ask for trouble: far more of it than a test suite has time for. The tests run the same ones, small."""
