"""From rows to prepared files and back, with what is known of them."""
