"""Examinations kept on one disk: through power cuts, full disks and damage, and deleted when asked for.

A frame's way ends here. `exams.ExamStore` is what others use; `disk.Disk` is the one door to the disk, where tests put
their faults.
"""
