"""What a network learns from: pairs, guided images, rewards, or scores of any kind."""
