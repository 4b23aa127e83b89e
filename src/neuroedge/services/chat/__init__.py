"""Conversations with the assistant: sessions, their messages and attachments, and what answers them."""
