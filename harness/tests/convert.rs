//! The editor's format converted, case by case: what is in the prompt for what is in the editor.

use lockproof_replay::{convert::convert, editor::Workflow, info::ObjectInfo, validate::validate};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

fn recorded() -> ObjectInfo {
    ObjectInfo::parse(include_str!("../../fixtures/contract/object_info.json")).expect("JSON")
}

/// A node between an empty image (1) and a saved one (9), to which link 2 leads.
fn around(nodes: &[Value], links: &[Value]) -> Value {
    let mut all = vec![
        json!({ "id": 1, "type": "EmptyImage", "outputs": [{ "type": "IMAGE", "links": [1] }], "widgets_values": [8, 8, 1, 0] }),
        json!({ "id": 9, "type": "SaveImage", "inputs": [{ "name": "images", "type": "IMAGE", "link": 2 }], "widgets_values": ["x"] }),
    ];
    all.extend_from_slice(nodes);
    json!({ "nodes": all, "links": links })
}

/// A node that takes an image by link 1 and gives one by link 2.
fn between(class: &str, mode: u8) -> Value {
    json!({
        "id": 5, "type": class, "mode": mode,
        "inputs": [{ "name": "image", "type": "IMAGE", "link": 1 }], "outputs": [{ "type": "IMAGE", "links": [2] }],
    })
}

/// What the saved image is linked to, and the ids of the prompt.
fn made(workflow: &Value) -> (Value, Vec<String>) {
    let made = convert(&Workflow::of(workflow.as_object().expect("an object")), &recorded());
    assert_eq!(made.problems, []);
    let saved = made.prompt.node("9").and_then(|node| node.inputs.get("images")).cloned().unwrap_or_default();
    (saved, made.prompt.nodes.into_iter().map(|node| node.id).collect())
}

#[rstest]
#[case::a_node_is_a_node("ImageInvert", 0, json!(["5", 0]), &["1", "9", "5"])]
#[case::a_bypassed_node_lets_through("ImageInvert", 4, json!(["1", 0]), &["1", "9"])]
#[case::a_muted_node_gives_nothing("ImageInvert", 2, Value::Null, &["1", "9"])]
#[case::a_reroute_is_followed("Reroute", 0, json!(["1", 0]), &["1", "9"])]
#[case::so_is_that_of_rgthree("Reroute (rgthree)", 0, json!(["1", 0]), &["1", "9"])]
#[case::a_note_is_left_out("MarkdownNote", 0, Value::Null, &["1", "9"])]
fn in_the_editor_and_in_the_prompt(#[case] class: &str, #[case] mode: u8, #[case] saved: Value, #[case] ids: &[&str]) {
    let links = [json!([1, 1, 0, 5, 0, "IMAGE"]), json!([2, 5, 0, 9, 0, "IMAGE"])];
    let found = made(&around(&[between(class, mode)], &links));
    assert_eq!((found.0, found.1.iter().map(String::as_str).collect::<Vec<_>>()), (saved, ids.to_vec()));
}

/// A node in a prompt, converted from these nodes and links.
fn inputs(id: &str, nodes: &Value, links: &Value) -> Value {
    inputs_of(id, &json!({ "nodes": nodes, "links": links }))
}

fn inputs_of(id: &str, workflow: &Value) -> Value {
    let made = convert(&Workflow::of(workflow.as_object().expect("an object")), &recorded());
    assert_eq!(made.problems, []);
    made.prompt.node(id).map(|node| Value::Object(node.inputs.clone())).unwrap_or_default()
}

fn scaled(width_link: u8) -> Value {
    json!({
        "id": 5, "type": "ImageScale", "widgets_values": ["area", 32, 16, "disabled"],
        "inputs": [{ "name": "width", "type": "INT", "link": width_link, "widget": { "name": "width" } }],
    })
}

fn primitive(mode: u8) -> Value {
    json!({ "id": 7, "type": "PrimitiveNode", "mode": mode, "outputs": [{ "type": "INT", "links": [3] }], "widgets_values": [48, "fixed"] })
}

#[rstest]
#[case::active(0)]
#[case::muted(2)]
#[case::bypassed(4)]
fn a_primitive_node_writes_its_value_whatever_its_mode(#[case] mode: u8) {
    let found = inputs("5", &json!([primitive(mode), scaled(3)]), &json!([[3, 7, 0, 5, 0, "INT"]]));
    assert_eq!(found["width"], 48);
}

#[test]
fn a_primitive_node_writes_through_no_other_node() {
    let reroute = json!({ "id": 8, "type": "Reroute", "inputs": [{ "name": "", "type": "*", "link": 3 }], "outputs": [{ "type": "INT", "links": [4] }] });
    let links = json!([[3, 7, 0, 8, 0, "*"], [4, 8, 0, 5, 0, "INT"]]);
    assert_eq!(inputs("5", &json!([primitive(0), reroute, scaled(4)]), &links)["width"], 32);
}

const DYNAMIC: &str = "a cat /* not this */ {red|red} // end";

fn encoded(link: u8) -> Value {
    json!({
        "id": 5, "type": "CLIPTextEncode", "widgets_values": ["old"],
        "inputs": [{ "name": "text", "type": "STRING", "link": link, "widget": { "name": "text" } }],
    })
}

#[test]
fn a_primitive_node_s_text_is_a_dynamic_prompt_where_it_goes_into_one() {
    let text =
        json!({ "id": 7, "type": "PrimitiveNode", "outputs": [{ "type": "STRING" }], "widgets_values": [DYNAMIC] });
    let found = inputs("5", &json!([text, encoded(3)]), &json!([[3, 7, 0, 5, 0, "STRING"]]));
    assert_eq!(found["text"], "a cat  red ");
}

#[test]
fn a_text_that_a_subgraph_shows_is_sent_as_it_stands() {
    let workflow = json!({
        "nodes": [{ "id": 2, "type": "sub", "widgets_values": [DYNAMIC] }], "links": [],
        "definitions": { "subgraphs": [{
            "id": "sub", "inputs": [{ "name": "text", "type": "STRING" }], "nodes": [encoded(3)],
            "links": [[3, -10, 0, 5, 0, "STRING"]],
        }] },
    });
    assert_eq!(inputs_of("2:5", &workflow)["text"], DYNAMIC);
}

#[rstest]
#[case::at_once("*", &[])]
#[case::through_a_reroute("*", &["*"])]
#[case::what_takes_a_picture_gets_no_mask("IMAGE", &["*"])]
fn what_takes_anything_gets_what_goes_into_a_bypassed_node(#[case] wanted: &str, #[case] reroutes: &[&str]) {
    let mut nodes = vec![
        json!({ "id": 6, "type": "SolidMask", "outputs": [{ "type": "MASK" }], "widgets_values": [1, 8, 8] }),
        json!({ "id": 2, "type": "MaskToImage", "mode": 4, "inputs": [{ "name": "mask", "type": "MASK", "link": 1 }], "outputs": [{ "type": "IMAGE" }] }),
    ];
    let mut links = vec![json!([1, 6, 0, 2, 0, "MASK"])];
    let mut last = 2;
    for (id, kind) in (10..).zip(reroutes) {
        links.push(json!([id, last, 0, id, 0, kind]));
        nodes.push(json!({ "id": id, "type": "Reroute", "inputs": [{ "name": "", "type": kind, "link": id }], "outputs": [{ "type": kind }] }));
        last = id;
    }
    links.push(json!([3, last, 0, 9, 0, wanted]));
    nodes.push(json!({ "id": 9, "type": "PreviewAny", "inputs": [{ "name": "source", "type": wanted, "link": 3 }] }));
    let gets = if wanted == "*" { json!(["6", 0]) } else { Value::Null };
    assert_eq!(inputs("9", &json!(nodes), &json!(links))["source"], gets);
}

/// A subgraph that shows the `scale_by` of its node, with what its own node lists and saves.
fn showing(proxies: &Value, values: &Value) -> Value {
    json!({
        "nodes": [{ "id": 2, "type": "sub", "properties": { "proxyWidgets": proxies }, "widgets_values": values }],
        "links": [],
        "definitions": { "subgraphs": [{
            "id": "sub", "inputs": [{ "name": "by", "type": "FLOAT" }],
            "nodes": [{
                "id": 7, "type": "ImageScaleBy", "widgets_values": ["area", 1.0],
                "inputs": [{ "name": "scale_by", "type": "FLOAT", "link": 3, "widget": { "name": "scale_by" } }],
            }],
            "links": [[3, -10, 0, 7, 0, "FLOAT"]],
        }] },
    })
}

#[rstest]
#[case::each_has_a_value(json!([["7", "upscale_method"], ["-1", "by"]]), json!(["bicubic", 0.5]))]
#[case::the_inputs_alone_have_values(json!([["7", "upscale_method"], ["-1", "by"]]), json!([0.5]))]
#[case::it_lists_nothing(json!([]), json!([0.5]))]
fn a_list_of_what_a_subgraph_shows_may_have_fewer_values(#[case] proxies: Value, #[case] values: Value) {
    assert_eq!(inputs_of("2:7", &showing(&proxies, &values))["scale_by"], 0.5);
}

/// The editor skips only nodes of the first graph; what lies deeper has its own mode.
#[rstest]
#[case::active(0, json!(["2:3:4", 0]))]
#[case::muted(2, Value::Null)]
#[case::bypassed(4, Value::Null)]
fn the_nodes_of_a_subgraph_in_a_subgraph_run_whatever_its_mode(#[case] mode: u8, #[case] given: Value) {
    let empty = json!({ "id": 4, "type": "EmptyImage", "outputs": [{ "type": "IMAGE", "links": [1] }], "widgets_values": [8, 8, 1, 0] });
    let save = |link: u8| json!({ "id": 5, "type": "SaveImage", "inputs": [{ "name": "images", "type": "IMAGE", "link": link }], "widgets_values": ["x"] });
    let workflow = json!({
        "nodes": [{ "id": 2, "type": "outer" }], "links": [],
        "definitions": { "subgraphs": [
            { "id": "outer", "nodes": [{ "id": 3, "type": "inner", "mode": mode, "outputs": [{ "type": "IMAGE", "links": [2] }] }, save(2)], "links": [[2, 3, 0, 5, 0, "IMAGE"]] },
            { "id": "inner", "nodes": [empty, save(1)], "links": [[1, 4, 0, 5, 0, "IMAGE"], [2, 4, 0, -20, 0, "IMAGE"]] },
        ] },
    });
    assert_eq!(inputs_of("2:3:5", &workflow)["images"], json!(["2:3:4", 0]));
    assert_eq!(inputs_of("2:5", &workflow)["images"], given);
}

/// What is recorded, and nodes that show models in three dimensions.
fn with_models() -> ObjectInfo {
    let mut classes: Value =
        serde_json::from_str(include_str!("../../fixtures/contract/object_info.json")).expect("JSON");
    for (class, kind) in [("Load3D", "LOAD_3D"), ("Load3DAnimation", "LOAD_3D_ANIMATION")] {
        let size = json!(["INT", { "default": 1024 }]);
        let inputs =
            json!({ "model_file": [[], { "file_upload": true }], "image": [kind, {}], "width": size, "height": size });
        classes[class] = json!({ "input": { "required": inputs }, "output": ["IMAGE"] });
    }
    ObjectInfo::parse(&classes.to_string()).expect("JSON")
}

/// A node that gives an image to a saved one, which cannot be converted.
fn refused(node: &Value) -> (Vec<String>, Vec<String>) {
    let save = json!({ "id": 9, "type": "SaveImage", "inputs": [{ "name": "images", "type": "IMAGE", "link": 2 }], "widgets_values": ["x"] });
    let invert = json!({ "id": 8, "type": "ImageInvert", "inputs": [{ "name": "image", "type": "IMAGE" }], "outputs": [{ "type": "IMAGE", "links": [3] }] });
    let other = json!({ "id": 7, "type": "SaveImage", "inputs": [{ "name": "images", "type": "IMAGE", "link": 3 }], "widgets_values": ["x"] });
    let workflow =
        json!({ "nodes": [node, save, invert, other], "links": [[2, 1, 0, 9, 0, "IMAGE"], [3, 8, 0, 7, 0, "IMAGE"]] });
    let info = with_models();
    let made = convert(&Workflow::of(workflow.as_object().expect("an object")), &info);
    let wrong = validate(&made.prompt, &info).into_iter().filter(|problem| !made.explains(problem));
    (made.problems.iter().map(ToString::to_string).collect(), wrong.map(|problem| problem.to_string()).collect())
}

#[rstest]
#[case::a_group_node("workflow>Load", json!([]), "cannot convert the group node “Load”")]
#[case::a_model_s_picture("Load3D", json!([null, "upload3dmodel", "uploadExtraResources", "clear", "", 1025, 1025]), "rendered in the browser")]
#[case::a_moving_model_s_picture("Load3DAnimation", json!([null, "upload3dmodel", "uploadExtraResources", "clear", "", 1025, 1025]), "rendered in the browser")]
fn what_cannot_be_converted_is_reported_once(#[case] class: &str, #[case] values: Value, #[case] why: &str) {
    let outputs = json!([{ "type": "IMAGE", "links": [2] }]);
    let (problems, wrong) = refused(&json!({ "id": 1, "type": class, "outputs": outputs, "widgets_values": values }));
    assert!(problems.len() == 1 && problems[0].contains(why), "{problems:?}");
    // What has nothing to do with it is told as ever.
    assert_eq!(wrong, ["node 8 (ImageInvert), input `image`: missing; expected a link to a node that outputs IMAGE"]);
}

#[test]
fn a_workflow_that_is_nothing_else_is_not_called_empty() {
    let workflow = json!({ "nodes": [{ "id": 1, "type": "workflow>All" }], "links": [] });
    let made = convert(&Workflow::of(workflow.as_object().expect("an object")), &recorded());
    assert_eq!(made.problems.len(), 1);
    let wrong = validate(&made.prompt, &recorded());
    assert!(!wrong.is_empty() && wrong.iter().all(|problem| made.explains(problem)), "{wrong:?}");
}

#[test]
fn set_and_get_are_one_link() {
    let nodes = [
        json!({ "id": 5, "type": "SetNode", "inputs": [{ "name": "IMAGE", "type": "IMAGE", "link": 1 }], "widgets_values": ["picture"] }),
        json!({ "id": 6, "type": "GetNode", "outputs": [{ "type": "IMAGE", "links": [2] }], "widgets_values": ["picture"] }),
    ];
    let links = [json!([1, 1, 0, 5, 0, "IMAGE"]), json!([2, 6, 0, 9, 0, "IMAGE"])];
    assert_eq!(made(&around(&nodes, &links)), (json!(["1", 0]), vec!["1".to_owned(), "9".to_owned()]));
}

#[test]
fn what_goes_round_ends() {
    let reroute = |id: u8, from: u8, to: u8| json!({ "id": id, "type": "Reroute", "inputs": [{ "name": "", "type": "*", "link": from }], "outputs": [{ "type": "*", "links": [to] }] });
    let links = [json!([3, 6, 0, 5, 0, "*"]), json!([4, 5, 0, 6, 0, "*"]), json!([2, 5, 0, 9, 0, "*"])];
    assert_eq!(made(&around(&[reroute(5, 3, 4), reroute(6, 4, 3)], &links)).0, Value::Null);
}

/// Two copies of one subgraph, which shows a seedless value of its own: the socket of one is left
/// out, as some versions do, and the other one is linked.
#[test]
fn a_subgraph_is_its_nodes_with_the_values_of_each_copy() {
    let instance = |id: u8, inputs: Value, values: Value, out: u8| json!({ "id": id, "type": "sub", "inputs": inputs, "outputs": [{ "type": "IMAGE", "links": [out] }], "widgets_values": values });
    let image = json!({ "name": "image", "type": "IMAGE", "link": 1 });
    let workflow = json!({
        "nodes": [
            { "id": 1, "type": "EmptyImage", "outputs": [{ "type": "IMAGE", "links": [1, 5] }], "widgets_values": [8, 8, 1, 0] },
            instance(2, json!([image]), json!([0.5]), 2),
            instance(3, json!([{ "name": "image", "type": "IMAGE", "link": 5 }, { "name": "by", "type": "FLOAT", "link": null, "widget": { "name": "by" } }]), json!([0.25]), 3),
            { "id": 4, "type": "ImageBatch", "inputs": [{ "name": "image1", "type": "IMAGE", "link": 2 }, { "name": "image2", "type": "IMAGE", "link": 3 }], "outputs": [{ "type": "IMAGE", "links": [4] }] },
            { "id": 9, "type": "SaveImage", "inputs": [{ "name": "images", "type": "IMAGE", "link": 4 }], "widgets_values": ["x"] },
        ],
        "links": [
            [1, 1, 0, 2, 0, "IMAGE"], [5, 1, 0, 3, 0, "IMAGE"], [2, 2, 0, 4, 0, "IMAGE"], [3, 3, 0, 4, 1, "IMAGE"], [4, 4, 0, 9, 0, "IMAGE"],
        ],
        "definitions": { "subgraphs": [{
            "id": "sub", "name": "Smaller",
            "inputs": [{ "name": "image", "type": "IMAGE" }, { "name": "by", "type": "FLOAT" }],
            "nodes": [{
                "id": 7, "type": "ImageScaleBy",
                "inputs": [
                    { "name": "image", "type": "IMAGE", "link": 11 },
                    { "name": "scale_by", "type": "FLOAT", "link": 12, "widget": { "name": "scale_by" } },
                ],
                "outputs": [{ "type": "IMAGE", "links": [13] }], "widgets_values": ["area", 1.0],
            }],
            "links": [
                { "id": 11, "origin_id": -10, "origin_slot": 0, "target_id": 7, "target_slot": 0, "type": "IMAGE" },
                { "id": 12, "origin_id": -10, "origin_slot": 1, "target_id": 7, "target_slot": 1, "type": "FLOAT" },
                { "id": 13, "origin_id": 7, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "IMAGE" },
            ],
        }] },
    });
    let made = convert(&Workflow::of(workflow.as_object().expect("an object")), &recorded());
    assert_eq!(made.problems, []);
    let inputs = |id: &str| made.prompt.node(id).map(|node| Value::Object(node.inputs.clone())).unwrap_or_default();
    assert_eq!(inputs("4"), json!({ "image1": ["2:7", 0], "image2": ["3:7", 0] }));
    assert_eq!(inputs("2:7"), json!({ "upscale_method": "area", "scale_by": 0.5, "image": ["1", 0] }));
    assert_eq!(inputs("3:7"), json!({ "upscale_method": "area", "scale_by": 0.25, "image": ["1", 0] }));
}

#[test]
fn a_subgraph_that_holds_itself_is_named() {
    let inner = json!({ "id": 7, "type": "sub" });
    let workflow = json!({
        "nodes": [inner.clone()], "links": [],
        "definitions": { "subgraphs": [{ "id": "sub", "name": "Ouroboros", "nodes": [inner], "links": [] }] },
    });
    let made = convert(&Workflow::of(workflow.as_object().expect("an object")), &recorded());
    assert_eq!(
        made.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["node 7:7 (sub): the subgraph “Ouroboros” contains itself"]
    );
}

/// Something like a workflow, with something wrong anywhere.
fn anything() -> impl Strategy<Value = Value> {
    let id = prop_oneof![
        (0_i64..4).prop_map(Value::from),
        Just(json!("a")),
        Just(json!(-10)),
        Just(json!(-20)),
        Just(Value::Null)
    ];
    let class = prop_oneof![
        Just("KSampler"),
        Just("LoadImage"),
        Just("SaveImage"),
        Just("Reroute"),
        Just("SetNode"),
        Just("GetNode"),
        Just("PrimitiveNode"),
        Just("sub"),
        Just("workflow>x"),
        Just("Nobody's (node)"),
        Just(""),
    ];
    let value = prop_oneof![
        Just(json!([1, "randomize", [], {}])),
        Just(json!({ "seed": "x" })),
        Just(Value::Null),
        Just(json!("x")),
        Just(json!([]))
    ];
    let slot = (any::<bool>(), id.clone()).prop_map(|(widget, link)| {
        json!({ "name": "image", "type": "IMAGE", "link": link, "links": [link], "widget": if widget { json!({ "name": "image" }) } else { Value::Null } })
    });
    let node = (id.clone(), class, 0_u8..5, value, proptest::collection::vec(slot, 0..3)).prop_map(
        |(id, class, mode, values, slots)| {
            json!({ "id": id, "type": class, "mode": mode, "widgets_values": values, "inputs": slots, "outputs": slots })
        },
    );
    let link = proptest::collection::vec(id, 0..7).prop_map(Value::from);
    let graph = (proptest::collection::vec(node, 0..6), proptest::collection::vec(link, 0..6));
    (graph.clone(), graph).prop_map(|((nodes, links), (inner, inner_links))| {
        json!({
            "nodes": nodes, "links": links,
            "definitions": { "subgraphs": [{ "id": "sub", "nodes": inner, "links": inner_links, "inputs": [{ "name": "image" }] }] },
        })
    })
}

proptest! {
    #[test]
    fn whatever_stands_in_the_file_it_is_converted_or_named(workflow in anything()) {
        let made = convert(&Workflow::of(workflow.as_object().expect("an object")), &recorded());
        let ids: Vec<&str> = made.prompt.nodes.iter().map(|node| node.id.as_str()).collect();
        // No link leads to nobody.
        for value in made.prompt.nodes.iter().flat_map(|node| node.inputs.values()) {
            if let Some([Value::String(id), Value::Number(_)]) = value.as_array().map(Vec::as_slice) {
                prop_assert!(ids.contains(&id.as_str()));
            }
        }
    }
}
