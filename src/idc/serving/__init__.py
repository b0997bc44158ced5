"""A page to drop an image into: ``answering`` has what it shows, ``page`` how (gradio, the extra ``serve``)."""
