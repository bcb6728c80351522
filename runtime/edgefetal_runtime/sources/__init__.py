"""Where frames come from: stills, folders of stills, videos, MetaImage and DICOM files; and their pixel sizes."""
