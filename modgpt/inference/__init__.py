"""What a trained model is used for: generating text and evaluating by length."""
