package theme

import (
	"image/color"
	"math"
	"testing"
)

// deficiencies are linear-light matrices of full colour blindness
// (Machado, Oliveira, Fernandes 2009, severity 1.0).
var deficiencies = map[string][9]float64{
	"normal": {1, 0, 0, 0, 1, 0, 0, 0, 1},
	"protan": {0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998},
	"deutan": {0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.011820, 0.042940, 0.968881},
	"tritan": {1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.303900},
}

// seen is the CIE Lab colour that a person sees.
func seen(c color.Color, m [9]float64) [3]float64 {
	r, g, b, _ := c.RGBA()
	lin := func(v uint32) float64 {
		x := float64(v) / 0xffff
		if x <= 0.04045 {
			return x / 12.92
		}
		return math.Pow((x+0.055)/1.055, 2.4)
	}
	in := [3]float64{lin(r), lin(g), lin(b)}
	var rgb [3]float64
	for i := range 3 {
		rgb[i] = min(1, max(0, m[3*i]*in[0]+m[3*i+1]*in[1]+m[3*i+2]*in[2]))
	}
	f := func(x float64) float64 {
		if x > 216.0/24389 {
			return math.Cbrt(x)
		}
		return (24389.0/27*x + 16) / 116
	}
	x := f((0.4124*rgb[0] + 0.3576*rgb[1] + 0.1805*rgb[2]) / 0.95047)
	y := f(0.2126*rgb[0] + 0.7152*rgb[1] + 0.0722*rgb[2])
	z := f((0.0193*rgb[0] + 0.1192*rgb[1] + 0.9505*rgb[2]) / 1.08883)
	return [3]float64{116*y - 16, 500 * (x - y), 200 * (y - z)}
}

func distance(a, b color.Color, m [9]float64) float64 {
	p, q := seen(a, m), seen(b, m)
	return math.Hypot(math.Hypot(p[0]-q[0], p[1]-q[1]), p[2]-q[2])
}

// Two colours nearer than this (CIE76) are one colour on a bad screen.
const apart = 12

// TestPaletteForEveryEye: all pairs of roles differ for the common colour
// blindnesses. Failed against proven, the pair that matters, differs by far.
func TestPaletteForEveryEye(t *testing.T) {
	p := Palette()
	for name, m := range deficiencies {
		for a := range p {
			for b := range p {
				if d := distance(p[a], p[b], m); a < b && d < apart {
					t.Errorf("%s: roles %d and %d differ by %.1f, want %d", name, a, b, d, apart)
				}
			}
		}
		if d := distance(p[Good], p[Bad], m); d < 5*apart {
			t.Errorf("%s: proven and failed differ by %.1f, want %d", name, d, 5*apart)
		}
	}
}

// TestRedAgainstGreenWouldFail is the negative control.
func TestRedAgainstGreenWouldFail(t *testing.T) {
	red, green := color.RGBA{R: 200, G: 75, A: 255}, color.RGBA{R: 110, G: 120, A: 255}
	if d := distance(red, green, deficiencies["normal"]); d < 5*apart {
		t.Fatalf("the pair differs by %.1f only to a normal eye", d)
	}
	if d := distance(red, green, deficiencies["deutan"]); d > 5*apart {
		t.Errorf("red against green differs by %.1f to a deutan eye: the simulation does nothing", d)
	}
}

func TestNoColourNoEscape(t *testing.T) {
	for _, ascii := range []bool{false, true} {
		th := New(false, ascii)
		for r := range roles {
			if th.On(r) != "" || th.Off(r) != "" {
				t.Errorf("role %d has escape sequences without colour", r)
			}
		}
	}
	th := New(true, false)
	for r := range roles {
		if r != Text && (th.On(r) == "" || th.Off(r) == "") {
			t.Errorf("role %d has no look in colour", r)
		}
	}
}
