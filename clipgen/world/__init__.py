"""The illustrated world that the bundled model is trained on.

`scene` samples scenes, `render` draws their images, `grammar` writes their captions and `parse` reads captions back.
"""
