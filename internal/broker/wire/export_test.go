package wire

// SendfileFrom forces the way of file ranges: 0 sends all of them with sendfile, a size above theirs copies them.
func (s *Sender) SendfileFrom(bytes int64) { s.sendfileFrom = bytes }
