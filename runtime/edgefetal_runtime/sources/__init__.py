"""Where frames come from: stills, folders of stills, video files."""
