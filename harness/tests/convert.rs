//! The editor's format converted, case by case: what is in the prompt for what is in the editor.

use lockproof::replay::{convert::convert, editor::Workflow, info::ObjectInfo};
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
        ["node 7:7 (sub): the subgraph “Ouroboros” holds itself"]
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
