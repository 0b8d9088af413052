"""A local page to look at runs and data sets, and to draw layouts by hand: columns of the records, a small server, and
plain HTML, CSS and JavaScript in `static/`."""
