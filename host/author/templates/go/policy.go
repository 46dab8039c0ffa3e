// Routes calls by their source: the carrier's calls go back to the carrier, known addresses are relayed, all others are rejected.
package main

import (
	p "{{identifier}}/portcullis"
)

func decide() p.Verdict {
	if p.Method() == "REGISTER" {
		return p.Reject(403, "No registrations here")
	}
	group, known := p.SourceAddressGroup()
	switch {
	case !known:
		p.Debug(p.SourceAddress() + " is not ours")
		return p.Reject(401, "Address not authorised").Header("X-Why", "unknown source")
	case group == 300:
		return p.RelayTo("carrier-a")
	default:
		return p.Relay()
	}
}

func init() { p.Policy(decide) }

func main() {}
