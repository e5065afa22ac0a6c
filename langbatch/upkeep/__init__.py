"""What keeps a store and its remote files in order, and brings them back."""
