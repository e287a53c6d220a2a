"""JPEG XL files with colours of their own, and what they show.

Twelve patches of 8x8 pixels, encoded by libjxl's `cjxl` 0.7: no Python binding tells it colours.
"""

import base64

import numpy as np

PATCHES = np.kron(
    np.array(
        [
            [[224, 40, 32], [32, 200, 48], [40, 48, 216], [240, 240, 240]],
            [[250, 180, 20], [128, 128, 128], [90, 30, 140], [20, 160, 170]],
            [[10, 10, 12], [255, 255, 255], [200, 120, 150], [70, 90, 30]],
        ],
        np.uint8,
    ),
    np.ones((8, 8, 1), np.uint8),
)

_FILES = {
    "PQ": (
        "0000CN?1%F4GM<}0000KW^{RQYItlQ00000YItlQ00009YItmH3IG5AiE4OkWB&@p1pENx(IXBA0001h2m%2BumM"
        "XLla7OfNibsGWaioH1%d%!;7b4~VkN?|i!iAG5dzQDh<pgaJgPC^>#fd-fv$el!`I__J0psIUhM@nH+5g2?rRuGf"
        "<OORam9vPM&7KOZsSXq&o5{PQsLnvt>cG9R*crjg%gZ{U<L"
    ),
    "P3": (
        "0000CN?1%F4GM<}0000KW^{RQYItlQ00000YItlQ00009YItmH3IG5AhH7|hWB&@p@B@&^jR*n(0KfrD7?X~JgGn"
        "%AUc8&L<qHG@fTE%RV7ghbdU+ZeWDgLF0!i#`P@0kAa%}uz-0Tms4hY?m_s{HYuU5Hhlm$d=XPD+R>L0E;@S1CTi"
        "I(mV71RD*&=)Vg1MFHFCv^pc^u)Hel-v|Jjy=#jEM-9"
    ),
    "linear": (
        "0000CN?1%F4GM<}0000KW^{RQYItlQ00000YItlQ00009YItmH3IG5AhiZ6iWB&@p@B>h^2nYfJ0K@@H7?X~JgGn"
        "%A-sIic@&$qcV7K8F9f9C2?VYH7{OQxbXp`^NZ~Ft(0)U7{<ksMKmKc$ppKQmrvppXCKg}A;<KKZi{tMz!r^JkSa"
        "nK!${?~o@|MFgP?;-aareT6a-EdIRZxoJn^e{h%C>HJw"
    ),
    "profile, lossy": (
        "{|d$Mlft>efP{GfY&a=&z(rfR|BA^zx3q)`udosZo}OI{G-M2PYz#0_AxEmwYE4z+c5*>~0KS@j+JqrfE{K?XLBa"
        "*0Q)Uj$=MXn<+?4P`yH<)9r`y1RUfAx>zkmPYfI4>a62%}GTM8|8_nAeDVWJBn-Tlu1027D+=nVh=ssaE|p)$(2!"
        "OOXxFF$lxOxw85&{o?PmL!UdW0Q0OhnWP4B#RPuyS*sDFLT%DBl}p8)7oYv%oSOAPn)N<n0mEHyg$8|zr5uT5yus"
        "k&4P$;6F||;k#H8*Ny(MzfM`9u(u<=lZ-48-U`LL!*Ys~w_Ie32;{l*T3Z%A`g7Zj9K@`bj$a@EX$5bkDVyPQx?F"
        "t}>!Gd^(Wd^_@vIb5R`hCP`Clt5^OE!tyc1hLk>=!i2q1T>d_ORL{u;?lRA~h7Xi64)Mm_6`SUh=r)BSeo@z&mSG"
        "U$HbD3;8*69Z7t>_gGOM9Y3-**h)my8an(*ak9u3P17$Z3Zja8hOOp=8+?c=VYAY2Z*oqnSI#g;aVZ_?qnPIa6d`"
        "jhe(45LC3t{wQV3$g76zHES#e7u<UUrCN%?0~j3r&DSZWD(AsVSCQn&|ZlV^zOOY_3ml(`yacAku_3;ejb@APUf8"
        "^S@*{8Lhi>kw$O5pCpB8;L$^fa=oz;&cIIs!Kx^pV6oX2BBO^38hC0e}D!YBo>_-BliP^kHD+L-ZymxoEYta%tJ0"
        "PyxOMowfC2QX^FyQ5Ejnw#f|wssNayDFhba4$^<QfB<9>Z4uAUbJM9*O!)}K=$Z-mSo@c-eNU{l#@p3vz3ydf}6o"
        "r}IWIELzK?8%(81nt6@qs^u5#NIpE1iJ@S}*RQoB)$PCY(3a|FKp?niDkYz&Cl#TbkY^^^hssTaJ3$hse>%D9xlP"
        "<7AX@6_brd++qRC+^+&xuV$zVn-y1<4*TZU(3Y=&eR^`9R>4wuzT*2Tb~w5I%+ia9%PbM+0;fuk492F<5?+no@hP"
        "|rT<K|$K}j-7q$VHOJOK>9$wzAgJc<d$6mNiL#rnG7U68uqxQPI#a~)X=2Qe;~Rm`akmig?ZJgxmUt*@6dS+Pc#7"
        ">VeFY*E_qmo!W1kb#C9Vgfj4^VhFIDOe?P%Pa^02wYiq22(E$5FTRawU8d)ytN<Oho~rjlGy)239dqd&C1r?zeP`"
        "?hljiB?{aaqM+-BDJZX>Yy{`+f^K=V3bB>M-9PE7fOdfzG_#99="
    ),
    "profile": (
        "0000CN?1%F4GM<}0000KW^{RQYItlQ00000YItlQ00009YItmH3IG5A`f7M=WB&@p@B_lR!hnQ%0BkrZbihShx&M"
        "mEKDV@l3a_vd2A-Z>3^Zg6bZiVTQ6WdF(P~Xq<92dEe*nIke%gc~Q!a>@d_lqmp;KlK&F2s|Z`_pdL%UXr7pL36f"
        "nM0|&%b~F;($7K@)E@$7+VT0b@!P?i(#S*BHjJZ00;sB0KfrD7?X~JgGn%AUc8&L<qHG@@VBD?pt{_WZj6-Kf`;x"
        "+ZvOW+v|LJ)@l68pyl-fg{!%oG7thWZBtN-pTmye|XDC#2E?yDgEujg3j+E}e{3W*DaZVrK0_^IMP;>=^^u)Hel-"
        "v|Jjy=#jEM-9"
    ),
}


JXL = {name: base64.b85decode(text) for name, text in _FILES.items()}
