"""A local page to view runs and data sets and to draw layouts by hand: an index of the images, a small server, and
plain HTML, CSS and JavaScript in `static/`."""
