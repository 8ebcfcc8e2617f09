package records

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// gunzip unpacks gzip from memory to memory, at twice the speed of the library's reader, which takes its input byte by byte and keeps a window. It is for
// what clients write: one member without optional fields. Of anything else, and of what is damaged, it only says that it cannot; then the library
// has a look. What it unpacks has the length and the checksum that the member says. Source: RFC 1951, RFC 1952; tables as in libdeflate.
type gunzip struct {
	src  []byte
	pos  int    // of the next byte that is not in bits; beyond src there are zeros
	bits uint64 // the next n bits, lowest first; those above are zeros, or what will be there
	n    uint

	lit  [1<<litBits + litSubs<<(maxCode-litBits)]entry
	dist [1<<distBits + distSubs<<(maxCode-distBits)]entry
	pre  [1 << preBits]entry
}

// entry is what the next bits mean.
//
//	0-5    bits of the code and of what belongs to it
//	8-11   bits of the code alone
//	12-15  entryLit, entryTwo, entrySub, entryStop
//	16-31  the literal, or two, the first one low; the least length or distance; the place of a second table; of entryStop: 0 the end of the
//	       block, 1 not a code
type entry uint32

const (
	entryLit  entry = 1 << 12
	entryTwo  entry = 1 << 13 // of entryLit: there are two
	entrySub  entry = 1 << 14
	entryStop entry = 1 << 15
	notACode        = entryStop | 1<<16
)

func (e entry) size() uint   { return uint(e & 63) }
func (e entry) value() int   { return int(e >> 16) }
func (e entry) code() uint64 { return uint64(e >> 8 & 15) }
func (e entry) two() int     { return int(e >> 13 & 1) }

const (
	maxCode  = 15 // bits of a code
	litBits  = 11 // of an index into the first table; longer codes have a second one
	litSubs  = 144
	distBits = 8
	distSubs = 16
	preBits  = 7

	headerBytes, trailerBytes = 10, 8
	// slack is room behind the output for what one turn of the loop writes: eight literals, a match, and the rest of its last word.
	slack = 8 + 258 + 8
	// mostDeflated is how many bytes one of deflate can stand for.
	mostDeflated = 1032
)

// unpack gives the plain bytes of data in memory of buf where that is large enough. The result may have a larger capacity than length.
func (z *gunzip) unpack(data, buf []byte, most int) (plain []byte, ok bool) {
	if len(data) < headerBytes+trailerBytes || [4]byte(data) != [4]byte{0x1f, 0x8b, 8, 0} {
		return buf, false
	}
	trailer := data[len(data)-trailerBytes:]
	size := int(binary.LittleEndian.Uint32(trailer[4:]))
	if size > most || size > mostDeflated*len(data) {
		return buf, false
	}
	if cap(buf) < size+slack {
		buf = make([]byte, size+slack)
	}
	z.src, z.pos, z.bits, z.n = data, headerBytes, 0, 0
	defer func() { z.src = nil }()
	if !z.inflate(buf[:size+slack], size) || z.pos-int(z.n/8) != len(data)-trailerBytes {
		return buf, false
	}
	plain = buf[:size]
	return plain, crc32.ChecksumIEEE(plain) == binary.LittleEndian.Uint32(trailer)
}

// inflate fills out up to size, exactly.
func (z *gunzip) inflate(out []byte, size int) bool {
	o := 0
	for last := false; !last; {
		last = z.take(1) == 1
		ok := false
		switch z.take(2) {
		case 0:
			o, ok = z.stored(out, o, size)
		case 1:
			if ok = z.fixed(); ok {
				o, ok = z.block(out, o, size)
			}
		case 2:
			if ok = z.dynamic(); ok {
				o, ok = z.block(out, o, size)
			}
		}
		if !ok {
			return false
		}
	}
	return o == size
}

// fill makes n 56 at least.
func (z *gunzip) fill() {
	for z.n < 56 {
		if z.pos < len(z.src) {
			z.bits |= uint64(z.src[z.pos]) << z.n
		}
		z.pos++
		z.n += 8
	}
}

// take reads up to 16 bits.
func (z *gunzip) take(n uint) int {
	z.fill()
	v := z.bits & (1<<n - 1)
	z.bits >>= n
	z.n -= n
	return int(v)
}

// stored copies a block that is not compressed.
func (z *gunzip) stored(out []byte, o, size int) (int, bool) {
	at := z.pos - int(z.n/8) // the rest of the byte that was begun does not count
	z.bits, z.n = 0, 0
	if at+4 > len(z.src) {
		return o, false
	}
	n := int(binary.LittleEndian.Uint16(z.src[at:]))
	if n^0xffff != int(binary.LittleEndian.Uint16(z.src[at+2:])) || at+4+n > len(z.src) || o+n > size {
		return o, false
	}
	z.pos = at + 4 + n
	return o + copy(out[o:], z.src[at+4:z.pos]), true
}

// fixed makes the tables that the format has for blocks without any.
func (z *gunzip) fixed() bool {
	var lens [288 + 30]uint8
	for i := range lens {
		switch {
		case i < 144:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		case i < 280:
			lens[i] = 7
		case i < 288:
			lens[i] = 8
		default:
			lens[i] = 5
		}
	}
	return z.literals(lens[:288]) && build(z.dist[:], distBits, lens[288:], distance)
}

// preOrder is the order in which the lengths of the codes for lengths come.
var preOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamic reads the tables of a block.
func (z *gunzip) dynamic() bool {
	lits, dists, pres := z.take(5)+257, z.take(5)+1, z.take(4)+4
	var lens [286 + 30]uint8
	if lits > 286 || dists > 30 {
		return false
	}
	for i := range pres {
		lens[preOrder[i]] = uint8(z.take(3))
	}
	if !build(z.pre[:], preBits, lens[:19], plainSymbol) {
		return false
	}
	clear(lens[:19])
	for i := 0; i < lits+dists; {
		z.fill()
		e := z.pre[z.bits&(1<<preBits-1)]
		if e&entryStop != 0 {
			return false
		}
		z.bits >>= e.size()
		z.n -= e.size()
		v, times := uint8(e.value()), 1
		switch v {
		case 16:
			if i == 0 {
				return false
			}
			v, times = lens[i-1], 3+z.take(2)
		case 17:
			v, times = 0, 3+z.take(3)
		case 18:
			v, times = 0, 11+z.take(7)
		}
		if i+times > lits+dists {
			return false
		}
		for ; times > 0; times-- {
			lens[i] = v
			i++
		}
	}
	return z.literals(lens[:lits]) && build(z.dist[:], distBits, lens[lits:lits+dists], distance)
}

// literals makes the table of the first alphabet, in which two literals share an entry where it has bits for both.
func (z *gunzip) literals(lens []uint8) bool {
	if !build(z.lit[:], litBits, lens, literal) {
		return false
	}
	first := z.lit[:1<<litBits]
	for i := len(first) - 1; i >= 0; i-- { // downwards: what comes after is at a lower place, or the first
		if e := first[i]; e&entryLit != 0 {
			if next := first[i>>e.size()]; next&entryLit != 0 && e.size()+next.size() <= litBits {
				first[i] = e + entryTwo + entry(next.size()) | next>>16<<24
			}
		}
	}
	return true
}

// literal is the entry of a symbol of the first alphabet: literals, the end, lengths; without the bits of its code.
func literal(symbol int) entry {
	switch {
	case symbol < 256:
		return entryLit | entry(symbol)<<16
	case symbol == 256:
		return entryStop
	case symbol < 265:
		return entry(symbol-257+3) << 16
	case symbol < 285:
		extra := (symbol - 261) / 4
		return entry(3+(4+(symbol-265)%4)<<extra)<<16 | entry(extra)
	case symbol == 285:
		return 258 << 16
	}
	return notACode
}

// distance is the entry of a symbol of the second alphabet.
func distance(symbol int) entry {
	switch {
	case symbol < 4:
		return entry(symbol+1) << 16
	case symbol < 30:
		extra := symbol/2 - 1
		return entry(1+(2+symbol%2)<<extra)<<16 | entry(extra)
	}
	return notACode
}

// plainSymbol is the entry of a code for a length of codes.
func plainSymbol(symbol int) entry { return entry(symbol) << 16 }

// build makes the table of a canonical code from the lengths of its codes. The first 1<<direct entries are found by the next bits; those of longer codes
// point to a second table behind them. False: more codes than fit.
func build(table []entry, direct uint, lens []uint8, symbol func(int) entry) bool {
	var count, next [maxCode + 1]int
	for _, n := range lens {
		count[n]++
	}
	code := 0
	count[0] = 0
	for n := 1; n <= maxCode; n++ {
		code = (code + count[n-1]) << 1
		next[n] = code
		if code+count[n] > 1<<n {
			return false
		}
	}
	for i := range table[:1<<direct] {
		table[i] = notACode
	}
	free, span := 1<<direct, 1<<(maxCode-direct)
	for s, n := range lens {
		if n == 0 {
			continue
		}
		size := uint(n)
		at := int(bits.Reverse16(uint16(next[size])) >> (16 - size))
		next[size]++
		e := symbol(s) + entry(size) | entry(size)<<8
		part, step := table[:1<<direct], 1<<size
		if size > direct {
			first := &table[at&(1<<direct-1)]
			if *first == notACode {
				if free+span > len(table) {
					return false
				}
				*first = entrySub | entry(free)<<16
				for i := range span {
					table[free+i] = notACode
				}
				free += span
			}
			part, at, step = table[first.value():first.value()+span], at>>direct, 1<<(size-direct)
		}
		for ; at < len(part); at += step {
			part[at] = e
		}
	}
	return true
}

// block unpacks up to the end of a block. Each turn fills out further, so that it ends even when src does first.
func (z *gunzip) block(out []byte, o, size int) (int, bool) {
	src, pos, acc, n := z.src, z.pos, z.bits, z.n
	lit, dist := &z.lit, &z.dist
	for {
		if pos+8 <= len(src) {
			acc |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
			pos += int((63 - n) >> 3)
			n |= 56
		} else {
			z.pos, z.bits, z.n = pos, acc, n
			z.fill()
			pos, acc, n = z.pos, z.bits, z.n
		}
		if o > size {
			return o, false
		}
		e := lit[acc&(1<<litBits-1)]
		if e&entryLit != 0 { // up to four times one or two, of at most litBits
			acc >>= e.size()
			n -= e.size()
			binary.LittleEndian.PutUint16(out[o:], uint16(e>>16))
			o += 1 + e.two()
			if e = lit[acc&(1<<litBits-1)]; e&entryLit != 0 {
				acc >>= e.size()
				n -= e.size()
				binary.LittleEndian.PutUint16(out[o:], uint16(e>>16))
				o += 1 + e.two()
				if e = lit[acc&(1<<litBits-1)]; e&entryLit != 0 {
					acc >>= e.size()
					n -= e.size()
					binary.LittleEndian.PutUint16(out[o:], uint16(e>>16))
					o += 1 + e.two()
					if e = lit[acc&(1<<litBits-1)]; e&entryLit != 0 {
						acc >>= e.size()
						n -= e.size()
						binary.LittleEndian.PutUint16(out[o:], uint16(e>>16))
						o += 1 + e.two()
					}
				}
			}
			if e&entryLit != 0 || n < 48 { // of a length and a distance
				continue
			}
		}
		if e&entrySub != 0 {
			e = lit[e.value()+int(acc>>litBits&(1<<(maxCode-litBits)-1))]
		}
		if e&(entryLit|entryStop) != 0 {
			acc >>= e.size()
			n -= e.size()
			if e&entryLit == 0 {
				z.pos, z.bits, z.n = pos, acc&(1<<n-1), n
				return o, e.value() == 0
			}
			binary.LittleEndian.PutUint16(out[o:], uint16(e>>16))
			o += 1 + e.two()
			continue
		}
		length := e.value() + int(acc&(1<<e.size()-1)>>e.code())
		acc >>= e.size()
		n -= e.size()
		e = dist[acc&(1<<distBits-1)]
		if e&entrySub != 0 {
			e = dist[e.value()+int(acc>>distBits&(1<<(maxCode-distBits)-1))]
		}
		back := e.value() + int(acc&(1<<e.size()-1)>>e.code())
		if e&entryStop != 0 || back > o {
			return o, false
		}
		acc >>= e.size()
		n -= e.size()
		from, end := o-back, o+length
		if back >= 8 {
			for ; o < end; o, from = o+8, from+8 { // past the end: what comes next writes over it
				binary.LittleEndian.PutUint64(out[o:], binary.LittleEndian.Uint64(out[from:]))
			}
			o = end
			continue
		}
		for ; o < end; o, from = o+1, from+1 {
			out[o] = out[from]
		}
	}
}
