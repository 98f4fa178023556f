"""What is kept of answered pictures, and of what people say of them; knows no protobuf."""
