//! The workflows in `workflows/`, held against what real ComfyUI 0.3.64 said of its nodes.

use std::path::{Path, PathBuf};

use lockproof_replay::{
    convert,
    info::ObjectInfo,
    outputs::Content,
    prompt::Prompt,
    source::{Kind, Source},
    store,
    validate::validate,
};

fn workflows() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("workflows");
    let mut found: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("it is there")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "json"))
        .collect();
    found.sort();
    found
}

fn recorded() -> ObjectInfo {
    ObjectInfo::parse(include_str!("../../fixtures/contract/object_info.json")).expect("JSON")
}

fn prompt(source: &Source, info: &ObjectInfo) -> Prompt {
    match &source.workflow {
        Kind::Api(prompt) => prompt.clone(),
        Kind::Editor(workflow, _) => {
            let converted = convert::convert(workflow, info);
            assert_eq!(converted.problems, [], "{}", source.name);
            assert_eq!(converted.notes, Vec::<String>::new(), "{}", source.name);
            converted.prompt
        }
    }
}

#[test]
fn they_fit_the_recorded_nodes_but_for_files_that_are_not_on_that_server() {
    let info = recorded();
    let mut told = String::new();
    for path in workflows() {
        let source = Source::read(&path).expect("it can be read");
        for problem in validate(&prompt(&source, &info), &info) {
            assert!(problem.missing_file, "{}: {problem}", source.name);
            told.push_str(&format!("{}: {problem}\n", source.name));
        }
    }
    insta::assert_snapshot!(told, @r#"
    blend-editor.json: node 1 (LoadImage, “Photo”), input `image`: "lockproof-photo.png" is not available; expected only example.png
    blend.json: node 1 (LoadImage, “Photo”), input `image`: "lockproof-photo.png" is not available; expected only example.png
    qwen-image-to-image-editor.json: node 1 (UNETLoader, “Model”), input `unet_name`: "qwen_image_edit_fp8_e4m3fn.safetensors" is not available; expected nothing (the list is empty)
    qwen-image-to-image-editor.json: node 2 (CLIPLoader, “Text encoder”), input `clip_name`: "qwen_2.5_vl_7b_fp8_scaled.safetensors" is not available; expected nothing (the list is empty)
    qwen-image-to-image-editor.json: node 3 (VAELoader, “VAE”), input `vae_name`: "qwen_image_vae.safetensors" is not available; expected only pixel_space
    qwen-image-to-image-editor.json: node 6 (LoadImage, “Photo”), input `image`: "lockproof-photo.png" is not available; expected only example.png
    qwen-image-to-image.json: node 1 (UNETLoader, “Model”), input `unet_name`: "qwen_image_edit_fp8_e4m3fn.safetensors" is not available; expected nothing (the list is empty)
    qwen-image-to-image.json: node 2 (CLIPLoader, “Text encoder”), input `clip_name`: "qwen_2.5_vl_7b_fp8_scaled.safetensors" is not available; expected nothing (the list is empty)
    qwen-image-to-image.json: node 3 (VAELoader, “VAE”), input `vae_name`: "qwen_image_vae.safetensors" is not available; expected only pixel_space
    qwen-image-to-image.json: node 6 (LoadImage, “Photo”), input `image`: "lockproof-photo.png" is not available; expected only example.png
    qwen-text-to-image-editor.json: node 1 (UNETLoader, “Model”), input `unet_name`: "qwen_image_fp8_e4m3fn.safetensors" is not available; expected nothing (the list is empty)
    qwen-text-to-image-editor.json: node 2 (CLIPLoader, “Text encoder”), input `clip_name`: "qwen_2.5_vl_7b_fp8_scaled.safetensors" is not available; expected nothing (the list is empty)
    qwen-text-to-image-editor.json: node 3 (VAELoader, “VAE”), input `vae_name`: "qwen_image_vae.safetensors" is not available; expected only pixel_space
    qwen-text-to-image.json: node 1 (UNETLoader, “Model”), input `unet_name`: "qwen_image_fp8_e4m3fn.safetensors" is not available; expected nothing (the list is empty)
    qwen-text-to-image.json: node 2 (CLIPLoader, “Text encoder”), input `clip_name`: "qwen_2.5_vl_7b_fp8_scaled.safetensors" is not available; expected nothing (the list is empty)
    qwen-text-to-image.json: node 3 (VAELoader, “VAE”), input `vae_name`: "qwen_image_vae.safetensors" is not available; expected only pixel_space
    "#);
}

#[test]
fn the_editor_s_format_is_converted_to_the_same_prompt() {
    let info = recorded();
    let both = workflows().into_iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?.strip_suffix("-editor.json")?.to_owned();
        Some((path.with_file_name(format!("{name}.json")), path))
    });
    let mut count = 0;
    for (api, editor) in both {
        let of = |path: &Path| {
            let made = prompt(&Source::read(path).expect("it can be read"), &info);
            let nodes =
                made.nodes.into_iter().map(|node| (node.id, node.class, serde_json::Value::Object(node.inputs)));
            nodes.collect::<Vec<_>>()
        };
        assert_eq!(of(&api), of(&editor), "{}", editor.display());
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn each_has_stored_outputs_without_anything_else_in_their_files() {
    for path in workflows() {
        let stored = store::load(&store::directory(&path)).expect("it can be read").unwrap_or_default();
        assert!(!stored.is_empty(), "{}", path.display());
        for item in stored {
            let Content::Picture(bytes) = &item.content else { panic!("{} is no picture", item.name) };
            let text = String::from_utf8_lossy(bytes);
            assert!(!text.contains("class_type"), "{} carries its workflow", item.name);
        }
    }
}
