"""What the reinforcement steps share: the prompt cache, the rollouts and the learning loop."""
