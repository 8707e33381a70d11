package config

// LegacyControl is the item "legacy-control": a Receptor node on this host whose
// mesh is being moved over, site by site.
type LegacyControl struct {
	Pos      Pos
	Filename string // of its control socket; empty: there is no such item
}

func buildLegacyControl(c *Config, f *fields) {
	c.LegacyControl = LegacyControl{Pos: f.pos, Filename: need(f, "filename", asText)}
}

// checkLegacyControl finds a node that would ask itself.
func checkLegacyControl(c *Config, rep *report) {
	for _, s := range c.ControlServices {
		if f := c.LegacyControl.Filename; f != "" && s.Filename == f {
			rep.errorf(c.LegacyControl.Pos, "filename", "%s is this node's own control socket (%s): name that of the Receptor node", f, s.Pos.Place())
		}
	}
}
