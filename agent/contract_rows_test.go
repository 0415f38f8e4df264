package agent_test

// contractForeign is a uid that runs and was granted to nobody.
const contractForeign = 3900064005

// Paths of the table's things.
const (
	cPool     = "/v1/uid-pools/q"
	cGrants   = "/v1/uid-pools/p/uids"
	cUID      = "/v1/uids/3900064001"
	cOther    = "/v1/uids/3900064002"
	cForeign  = "/v1/uids/3900064005"
	cInv      = "/v1/vlan-inventories/a"
	cService  = "/v1/vlan-services/s"
	cFailing  = "/v1/vlan-services/f"
	cKey      = "/v1/allocations/k"
	cWants    = `{"attributes":[{"name":"north_vlan_id","inventory":"a"}]}`
	cNoMatch  = "AAAAAAAAAAAAAAAAAAAAAAAAAA"
	cUnstored = `{"ranges":"x"}`
)

// contractRows has every operation of the interface; of one that needs two rows,
// one has the refusal.
var contractRows = []contractRow{
	{id: "get-health", ok: ask{path: "/healthz"}, status: 200, bad: ask{path: "/healthz?x=1"}, refusal: 422},
	{id: "get-ready", ok: ask{path: "/readyz"}, status: 200, bad: ask{path: "/readyz?x=1"}, refusal: 422},
	{id: "get-status", ok: ask{path: "/v1/status"}, status: 200, bad: ask{path: "/v1/status?x=1"}, refusal: 422},
	{id: "get-metrics", ok: ask{path: "/metrics"}, status: 200, bad: ask{path: "/metrics?x=1"}, refusal: 422},
	{id: "put-log-level", ok: ask{path: "/v1/log-level", body: `{"level":"warn"}`}, status: 200, bad: ask{path: "/v1/log-level", body: `{"level":"loud"}`}, refusal: 422},
	{id: "check", ok: ask{path: "/v1/check"}, status: 200, bad: ask{path: "/v1/check?x=1"}, refusal: 422},
	{id: "repair", ok: ask{path: "/v1/repair"}, status: 200, bad: ask{path: "/v1/repair", body: `{"items":[{"key":1}]}`}, refusal: 422},
	{id: "repair", ok: ask{path: "/v1/repair", body: `{"items":[{"key":"/none","revision":1}]}`}, status: 200},
	{id: "stream-events", ok: ask{path: "/v1/events?once=true&recent=true"}, status: 200, bad: ask{path: "/v1/events?once=perhaps"}, refusal: 422},

	{id: "put-uid-pool", ok: ask{path: cPool, body: `{"ranges":"3900065000-3900065009"}`}, status: 201, bad: ask{path: cPool, body: cUnstored}, refusal: 422},
	{id: "patch-uid-pool", ok: ask{path: cPool, body: `{"add":"3900065010"}`}, status: 200, bad: ask{path: "/v1/uid-pools/none", body: `{"add":"3900065010"}`}, refusal: 404},
	{id: "list-uid-pools", ok: ask{path: "/v1/uid-pools"}, status: 200, bad: ask{path: "/v1/uid-pools?limit=0"}, refusal: 422},
	{id: "get-uid-pool", ok: ask{path: cPool}, status: 200, bad: ask{path: "/v1/uid-pools/none"}, refusal: 404},
	{id: "delete-uid-pool", ok: ask{path: cPool}, status: 204, bad: ask{path: "/v1/uid-pools/none"}, refusal: 404},

	{id: "request-uids", ok: ask{path: cGrants, body: `{"uid":3900064001,"key":"u"}`}, status: 201, keep: "uid", bad: ask{path: cGrants, body: `{"uid":5}`}, refusal: 422},
	{id: "request-uids", ok: ask{path: cGrants, body: `{"uid":3900064001,"key":"u"}`}, status: 200, keep: "uid"},
	{id: "request-uids", ok: ask{path: cGrants, body: `{"uid":3900064002,"hold":{"kind":"ttl","ttl":"1h"}}`}, status: 201, keep: "other"},
	{id: "list-uids", ok: ask{path: "/v1/uids"}, status: 200, bad: ask{path: "/v1/uids?limit=0"}, refusal: 422},
	{id: "get-uid", ok: ask{path: cUID}, status: 200, bad: ask{path: "/v1/uids/x"}, refusal: 422},
	{id: "confirm-uid", ok: ask{path: cUID + "/confirm", match: ":uid", body: `{"keep":true}`}, status: 200, bad: ask{path: cUID + "/confirm", match: cNoMatch}, refusal: 412},
	{id: "renew-uid", ok: ask{path: cOther + "/renew", match: ":other", body: `{"ttl":"2h"}`}, status: 200, bad: ask{path: cOther + "/renew", match: ":other", body: `{"ttl":"soon"}`}, refusal: 422},
	{id: "join-uid", ok: ask{path: cOther + "/nodes", match: ":other", body: `{}`}, status: 200, bad: ask{path: cOther + "/nodes", body: `{}`}, refusal: 428},
	{id: "adopt-uid", ok: ask{path: cForeign + "/adopt", body: `{"holder":"old job"}`}, status: 200, bad: ask{path: cForeign + "/adopt", body: `{"pool":"q"}`}, refusal: 422},
	{id: "release-uid", ok: ask{path: cOther, match: ":other"}, status: 200, bad: ask{path: cOther}, refusal: 428},
	{id: "release-uids", ok: ask{path: "/v1/uids?key=u"}, status: 200, bad: ask{path: "/v1/uids"}, refusal: 428},
	{id: "release-uid", ok: ask{path: cOther, match: ":other"}, status: 204},
	{id: "release-uids", ok: ask{path: "/v1/uids?key=u"}, status: 204},
	{id: "reserve-uids", ok: ask{path: "/v1/reservations", body: `{"ranges":"3900064008","reason":"x"}`}, status: 200, bad: ask{path: "/v1/reservations", body: `{"ranges":"3900064008"}`}, refusal: 422},
	{id: "list-reservations", ok: ask{path: "/v1/reservations"}, status: 200, bad: ask{path: "/v1/reservations?limit=0"}, refusal: 422},
	{id: "unreserve-uids", ok: ask{path: "/v1/reservations?ranges=3900064008"}, status: 200, bad: ask{path: "/v1/reservations"}, refusal: 422},

	{id: "put-vlan-inventory", ok: ask{path: cInv, body: `{"ranges":"100-109"}`}, status: 201, bad: ask{path: cInv, body: cUnstored}, refusal: 422},
	{id: "patch-vlan-inventory", ok: ask{path: cInv, body: `{"add":"110"}`}, status: 200, bad: ask{path: "/v1/vlan-inventories/none", body: `{"add":"110"}`}, refusal: 404},
	{id: "import-vlan-inventory", ok: ask{path: cInv + "/import", body: `{"used":[105]}`}, status: 200, bad: ask{path: cInv + "/import", body: `{"used":null}`}, refusal: 422},
	{id: "export-vlan-inventory", ok: ask{path: cInv + "/export"}, status: 200, bad: ask{path: "/v1/vlan-inventories/none/export"}, refusal: 404},
	{id: "list-vlan-inventories", ok: ask{path: "/v1/vlan-inventories"}, status: 200, bad: ask{path: "/v1/vlan-inventories?limit=0"}, refusal: 422},
	{id: "get-vlan-inventory", ok: ask{path: cInv}, status: 200, bad: ask{path: "/v1/vlan-inventories/none"}, refusal: 404},
	{id: "allocate-vlan", ok: ask{path: cInv + "/vlans", body: `{"vid":100,"key":"v"}`}, status: 201, bad: ask{path: cInv + "/vlans", body: `{"vid":105}`}, refusal: 409},
	{id: "allocate-vlan", ok: ask{path: cInv + "/vlans", body: `{"vid":101}`}, status: 201, keep: "vlan"},
	{id: "allocate-vlan", ok: ask{path: cInv + "/vlans", body: `{"vid":100,"key":"v"}`}, status: 200},
	{id: "list-vlans", ok: ask{path: cInv + "/vlans"}, status: 200, bad: ask{path: cInv + "/vlans?state=odd"}, refusal: 422},
	{id: "get-vlan", ok: ask{path: cInv + "/vlans/100"}, status: 200, bad: ask{path: cInv + "/vlans/9999"}, refusal: 422},
	{id: "release-vlan", ok: ask{path: cInv + "/vlans/101", match: ":vlan"}, status: 200, bad: ask{path: cInv + "/vlans/101"}, refusal: 428},
	{id: "release-vlan", ok: ask{path: cInv + "/vlans/101", match: ":vlan"}, status: 204},
	{id: "release-vlans", ok: ask{path: cInv + "/vlans?key=v"}, status: 200, bad: ask{path: cInv + "/vlans"}, refusal: 428},
	{id: "release-vlans", ok: ask{path: cInv + "/vlans?key=v"}, status: 204},

	{id: "put-vlan-service", ok: ask{path: cService, body: cWants}, status: 201, keep: "service", bad: ask{path: cService, body: `{"attributes":[]}`}, refusal: 422},
	{id: "put-vlan-service", ok: ask{path: cService, body: cWants}, status: 200},
	{id: "get-vlan-service", ok: ask{path: cService}, status: 200, bad: ask{path: "/v1/vlan-services/none"}, refusal: 404},
	{id: "list-vlan-services", ok: ask{path: "/v1/vlan-services"}, status: 200, bad: ask{path: "/v1/vlan-services?limit=0"}, refusal: 422},
	{id: "extend-vlan-service", ok: ask{path: cService + "/extend", match: ":service", body: `{"confirm_within":"2h"}`}, status: 200, bad: ask{path: cService + "/extend", match: ":service", body: `{"confirm_within":"soon"}`}, refusal: 422},
	{id: "begin-vlan-service", ok: ask{path: cService + "/begin", match: ":service"}, status: 200, bad: ask{path: cService + "/begin", match: cNoMatch}, refusal: 412},
	{id: "confirm-vlan-service", ok: ask{path: cService + "/confirm", match: ":service"}, status: 200, bad: ask{path: cService + "/confirm"}, refusal: 428},
	{id: "patch-vlan-service", ok: ask{path: cService, match: ":service", body: `{"attributes":[{"name":"south_vlan_id","inventory":"a"}]}`}, status: 200, bad: ask{path: cService, match: ":service", body: `{"attributes":[{"name":"x","inventory":"none"}]}`}, refusal: 404},
	{id: "delete-vlan-service", ok: ask{path: cService + "?hold=true"}, status: 200, bad: ask{path: cService + "?hold=perhaps"}, refusal: 422},
	{id: "removed-vlan-service", ok: ask{path: cService + "/removed", match: ":service"}, status: 200, bad: ask{path: cService + "/removed", match: cNoMatch}, refusal: 412},
	{id: "delete-vlan-service", ok: ask{path: cService}, status: 204},
	{id: "put-vlan-service", ok: ask{path: cFailing, body: cWants}, status: 201, keep: "failing"},
	{id: "fail-vlan-service", ok: ask{path: cFailing + "/fail", match: ":failing", body: `{"reason":"no power"}`}, status: 200, keep: "failing", bad: ask{path: cFailing + "/fail", match: ":failing", body: `{"reason":""}`}, refusal: 422},
	{id: "retry-vlan-service", ok: ask{path: cFailing + "/retry", match: ":failing"}, status: 200, bad: ask{path: cFailing + "/retry", match: cNoMatch}, refusal: 412},
	{id: "delete-vlan-service", ok: ask{path: cFailing}, status: 200},

	{id: "put-allocation", ok: ask{path: cKey, body: `{"items":[{"uid_pool":"p"},{"vlan_inventory":"a"}]}`}, status: 201, bad: ask{path: cKey, body: `{"items":[]}`}, refusal: 422},
	{id: "put-allocation", ok: ask{path: cKey, body: `{"items":[{"uid_pool":"p"},{"vlan_inventory":"a"}]}`}, status: 200},
	{id: "list-allocations", ok: ask{path: "/v1/allocations"}, status: 200, bad: ask{path: "/v1/allocations?limit=0"}, refusal: 422},
	{id: "get-allocation", ok: ask{path: cKey}, status: 200, bad: ask{path: "/v1/allocations/none"}, refusal: 404},
	{id: "delete-allocation", ok: ask{path: cKey}, status: 200, bad: ask{path: cKey + "?x=1"}, refusal: 422},
	{id: "delete-allocation", ok: ask{path: cKey}, status: 204},
	{id: "put-vlan-inventory", ok: ask{path: "/v1/vlan-inventories/b", body: `{"ranges":"1"}`}, status: 201},
	{id: "import-vlan-inventory", ok: ask{path: "/v1/vlan-inventories/c/import", body: `{"range":{"from":10,"to":12},"used":[10]}`}, status: 201},
	{id: "delete-vlan-inventory", ok: ask{path: "/v1/vlan-inventories/b"}, status: 204, bad: ask{path: cInv}, refusal: 409},
}

// contractNodeRows are sent once there are the nodes n2, which is fenced, and n3,
// which leaves.
var contractNodeRows = []contractRow{
	{id: "list-nodes", ok: ask{path: "/v1/nodes"}, status: 200, bad: ask{path: "/v1/nodes?x=1"}, refusal: 422},
	{id: "get-node", ok: ask{path: "/v1/nodes/n2"}, status: 200, bad: ask{path: "/v1/nodes/n9"}, refusal: 404},
	{id: "leave-node", on: 2, ok: ask{path: "/v1/nodes/n3/leave"}, status: 200, bad: ask{path: "/v1/nodes/n1/leave"}, refusal: 422},
	{id: "fence-node", ok: ask{path: "/v1/nodes/n2/fence", body: `{"reason":"power","force":true}`}, status: 200, bad: ask{path: "/v1/nodes/n2/fence", body: `{"reason":"power"}`}, refusal: 409},
	{id: "unfence-node", ok: ask{path: "/v1/nodes/n2/unfence"}, status: 200, bad: ask{path: "/v1/nodes/n9/unfence"}, refusal: 404},
	{id: "remove-node", ok: ask{path: "/v1/nodes/n2"}, status: 200, bad: ask{path: "/v1/nodes/n1"}, refusal: 412},
}
