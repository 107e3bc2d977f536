"""The processes of the mesh, and what they share."""
