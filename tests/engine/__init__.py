"""What one delivery does where the world around it fails."""
