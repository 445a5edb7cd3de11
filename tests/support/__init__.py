"""What the tests share and users have no use for; what they have is `penstock.testing`."""
