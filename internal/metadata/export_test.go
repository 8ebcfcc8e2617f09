package metadata

// ParseLog, DecodeSnapshot and DecodeRecord give the fuzz targets the decoders, each with its inverse.
func ParseLog(b []byte, generation, base uint64) (frames []byte, size, torn int64, err error) {
	c, err := parseLog(b, generation, base)
	frames = appendLogHeader(nil, generation)
	for i, r := range c.records {
		frames = appendFrame(frames, base+uint64(i)+1, appendRecord(nil, r))
	}
	return frames, c.size, c.torn, err
}

func DecodeSnapshot(b []byte, generation uint64) ([]byte, error) {
	s, err := decodeSnapshot(b, generation)
	if err != nil {
		return nil, err
	}
	return encodeSnapshot(s, generation), nil
}

func DecodeRecord(b []byte) ([]byte, error) {
	r, err := decodeRecord(b)
	if err != nil {
		return nil, err
	}
	return appendRecord(nil, r), nil
}

// SealFrame puts a right checksum around a payload, so that fuzzing gets past it.
func SealFrame(b []byte, seq uint64, payload []byte) []byte { return appendFrame(b, seq, payload) }

// LogHeader is the header of a log of one generation.
func LogHeader(generation uint64) []byte { return appendLogHeader(nil, generation) }

var EditDistance = editDistance
