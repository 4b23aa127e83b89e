"""Files of many formats to blocks of text with headings, tables and page numbers, read by a process of its own."""
