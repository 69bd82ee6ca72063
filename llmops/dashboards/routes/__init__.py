"""The route editor, and what would happen if something failed.

``typed.py`` is a route as a form has it, ``picture.py`` where its requests go, ``views.py`` the editor; ``question.py``,
``foreseen.py`` and ``whatif_views.py`` ask what stored traffic would do.
"""
