"""The planted corpus and its encoder, for all tests of this room."""

from tests.rl.test_reinforce import corpus, encoder

__all__ = ["corpus", "encoder"]
