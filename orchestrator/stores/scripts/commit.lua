-- Commit one change: the keys and the words are those of `change.lua`.

return commit()
