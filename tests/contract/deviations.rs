//! Where the lab is meant to answer otherwise than ComfyUI did.

use super::report::Difference;

/// One meant deviation: all of `paths` and `places` belong together.
struct Deviation {
    name: &'static str,
    reason: &'static str,
    /// Request paths, without query and without `/api`.
    paths: &'static [&'static str],
    /// Where in the answer.
    places: &'static [&'static str],
}

/// All of them. A real server never meets one.
const DEVIATIONS: [Deviation; 5] = [
    Deviation {
        name: "lab-hint",
        reason: "system_stats says that it is the lab, so that nobody takes it for the real thing",
        paths: &["/system_stats", "/%73ystem_stats"],
        places: &["json.system.lab"],
    },
    Deviation {
        name: "index-page",
        reason: "the lab has a page of its own instead of ComfyUI's editor",
        paths: &["/"],
        places: &["length"],
    },
    Deviation {
        name: "editor-extensions",
        reason: "without an editor, its extensions are one file instead of nineteen",
        paths: &["/extensions"],
        places: &["json"],
    },
    Deviation {
        name: "login-page",
        reason: "lab-login has a login page of its own",
        paths: &["/login"],
        places: &["length"],
    },
    Deviation {
        name: "stand-in-models",
        reason: "the lab brings small files along that stand in for models, and lists them",
        paths: &["/object_info"],
        places: &[
            "json.UNETLoader.input.required.unet_name[0]",
            "json.CLIPLoader.input.required.clip_name[0]",
            "json.VAELoader.input.required.vae_name[0]",
        ],
    },
];

/// The name of the deviation that a difference belongs to.
pub(super) fn name_of(path: &str, difference: &Difference) -> Option<&'static str> {
    let path = path.split('?').next().unwrap_or_default();
    let path = path.strip_prefix("/api").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    DEVIATIONS
        .iter()
        .find(|deviation| deviation.paths.contains(&path) && deviation.places.contains(&difference.at.as_str()))
        .map(|deviation| deviation.name)
}

/// Why a deviation is meant.
pub(super) fn reason(name: &str) -> &'static str {
    DEVIATIONS.iter().find(|deviation| deviation.name == name).map_or("", |deviation| deviation.reason)
}
