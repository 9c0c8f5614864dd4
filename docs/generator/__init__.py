"""Makes the manual: man pages and one HTML file, from the header and the pages of docs."""
