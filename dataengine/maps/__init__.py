"""Maps: what is where on the ground, from OpenStreetMap and its forms.

features   MapFeature, Map: features in metres around the middle of the map
read       read_map: OSM PBF, GeoJSON, GeoPackage, GeoParquet of Overture Maps, in any coordinate system
tags       tags of a feature, however its file stores them; overture does it for Overture Maps
coast      the sea, from the lines of the coast
grid       Grid: pixels <-> longitude and latitude; the check of metres per pixel
ground     Ground: classes of the ground, from tags (configs/maps/osm.yaml)
raster     MapRaster: classes, edges and directions of a grid's pixels
pairs      images with the raster of their map beside them, to train a control on
"""
