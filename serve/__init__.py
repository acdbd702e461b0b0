"""What answers: preprocessing, prediction and the HTTP application."""
