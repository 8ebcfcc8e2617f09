package wire

import "fmt"

// Header is a request header v1, or v2 without its tags.
type Header struct {
	Key           int16
	Version       int16
	CorrelationID int32
	ClientID      []byte // aliases the frame; nil when null
}

// maxTags bounds one tag section. No version of Kafka defines more than a handful; a request header with 20 million
// tags was an attack on Kafka itself (CVE-2026-111115).
const maxTags = 64

// maxHeaderTagBytes bounds the tags of a request header as a whole.
const maxHeaderTagBytes = 4 << 10

// ParseHeader reads a request header v1 and returns what follows it. A flexible version has a tag section there:
// SkipHeaderTags.
func ParseHeader(frame []byte) (Header, []byte, error) {
	r := Reader{src: frame}
	h := Header{Key: r.Int16(), Version: r.Int16(), CorrelationID: r.Int32()}
	h.ClientID = r.NullableString()
	if r.bad {
		return Header{}, nil, fmt.Errorf("%w: request header", ErrMalformed)
	}
	return h, r.src, nil
}

// SkipHeaderTags steps over the tag section of a request header v2; tags are not kept.
func SkipHeaderTags(src []byte) ([]byte, error) {
	r := Reader{src: src}
	r.SkipTags()
	if r.err != nil {
		return nil, r.err
	}
	if r.bad || len(src)-len(r.src) > maxHeaderTagBytes {
		return nil, fmt.Errorf("%w: tags of the request header", ErrMalformed)
	}
	return r.src, nil
}
