"""The local stack: private copies of the servers, a realistic main app, and what drives them."""
